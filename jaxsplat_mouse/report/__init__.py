"""Pages and pictures for people, made from folders and plain records."""
