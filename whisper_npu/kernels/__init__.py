"""The layers of Whisper as functions over arrays."""
