"""What the nodes of a cluster agree on. Pure decisions: whoever acts on them stands above (node/)."""
