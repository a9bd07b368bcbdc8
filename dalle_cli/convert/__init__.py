"""Import published weights and export checkpoints in published layouts."""
