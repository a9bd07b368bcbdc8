"""What the creating and ranking commands do, as functions: requests in, image files and result lines out."""
