"""Results of tasks on disk: serializers, hashes, cache policies and their size."""
