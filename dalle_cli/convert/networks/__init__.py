"""Key tables and sizes of networks that several layouts share."""
