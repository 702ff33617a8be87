"""REST over the control plane: desired state has verbs, observed state is read only."""
