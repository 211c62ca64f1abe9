"""Reading a flow's code without running it: which tasks it calls, in which order."""
