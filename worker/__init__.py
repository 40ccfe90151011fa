"""The GPU worker: claims jobs, supervises one child process per job, samples the GPU."""
