"""Plans, their cost, and their execution: the only place that knows the order of the steps."""
