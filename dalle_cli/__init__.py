"""Train, sample and judge the OpenAI text-to-image lineage from one command line."""

__version__ = "0.1.0"
