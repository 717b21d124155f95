"""kilonode: what a Kubernetes node pays when its cluster grows to 100,000 nodes."""
