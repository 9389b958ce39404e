"""What users of the tasks get, tried against real git, a real HTTP host and real environments."""
