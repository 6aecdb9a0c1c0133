"""One file a stage: Config (pydantic) and run(config)."""
