"""What a batch, a comparison or a benchmark found -> a page for people."""
