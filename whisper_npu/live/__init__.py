"""Speech -> words while it is spoken: a stream of samples in, events out."""
