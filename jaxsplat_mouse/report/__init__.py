"""Pages and pictures, made from folders and plain records."""
