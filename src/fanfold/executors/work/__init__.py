"""What a worker does, whatever the engine: runs tasks, measures them, keeps what they print."""
