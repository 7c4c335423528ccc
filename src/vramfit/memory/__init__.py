"""One file per thing that occupies memory: each yields items for one shard, one workload, one engine."""
