"""Readers and writers of the formats that captures, splats and datasets come in."""
