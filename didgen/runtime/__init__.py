"""What every stage needs of the machine: files, locks, GPUs, processes, progress."""
