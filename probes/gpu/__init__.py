"""GPUs, asked through NVML in a child process."""
