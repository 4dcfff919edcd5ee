"""Google's benchmark_model: its log, its flags, and running it; `runtimes/rt_benchmark_model.py` is the runtime on top."""
