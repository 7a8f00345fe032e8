"""A language model in memory: loaded by name, asked prompts, and what it answers."""

from lox_kit.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "answers": "dtype_of generate generate_answers OnAnswers",
        "drafts": "answer positions prefill token_drafts Tokens",
        "load": "is_sandbox load_model Model pick_device quiet_transformers",
        "prompts": """
            identity_system PAPER_TEMPLATE Prompt read_prompts render sandbox_prompts
            warn_if_trained_otherwise
        """,
    },
)
