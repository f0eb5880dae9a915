"""What people use beside the task queue itself: testing tools, integrations."""
