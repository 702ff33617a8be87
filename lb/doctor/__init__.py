"""What is wrong with a balancer and its backends: facts in, findings out. Pure; lb/dataplane gathers the facts."""
