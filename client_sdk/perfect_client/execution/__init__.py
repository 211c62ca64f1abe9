"""The processes that execute runs: the zygote, its children, the engine of one run."""
