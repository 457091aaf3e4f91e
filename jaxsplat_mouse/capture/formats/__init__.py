"""One reader for each format of a raw capture; `registry.read_capture` chooses among them."""
