"""What a study's records say: leaderboard, Pareto front, costs, statistics, final evaluations. No torch."""
