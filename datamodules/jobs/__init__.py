"""Run jobs, one a shard, in processes, on machines and on Ray; what is finished is not done again."""
