"""A plan, what it costs, and its execution: the only place that knows the order of the steps."""
