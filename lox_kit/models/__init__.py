"""A language model in memory or behind a server: prompts from files, and what it answers."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "answers": "dtype_of fitting_batches generate generate_answers greedy",
        "completions": "Reply ServerError",
        "drafts": "answer generate_likely token_drafts",
        "files": "collect read_rows read_text",
        "load": "DEVICE load_model load_module load_tokenizer Model pick_device world_of",
        "plan": "answering editing machine_rates Needs Size size_of training",
        "prefixes": "positions prefill Tokens",
        "prompts": """
            apply_template PAPER_TEMPLATE Prompt prompt_of read_prompts render
            sandbox_prompts smol_prompts start_mark template_args with_template_args
        """,
        "records": "column field record RowError text_field",
        "served": "ChatModel Limits",
        "thoughts": "opens_thought split_thought",
    },
)
