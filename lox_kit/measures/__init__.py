"""How safe a model is and what that costs it: shares and means, with their intervals."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "agreement": "pair_up Paired",
        "asr": """
            measure_asr measure_asr_at measure_at_lengths measure_samples rescore Samples
        """,
        "asr_result": "AsrResult compare",
        "card": """
            card_groups card_judge correct describe_card known_answers read_card
            sensitivity_specificity
        """,
        "drift": "Drift measure_drift Reference",
        "gsm8k": "by_rule measure_gsm8k read_gsm8k",
        "intervals": "Mean sampled_share Share share_fields true_share",
        "questions": """
            KINDS measure Questions read_requests task_prompts TOKENS world_questions WORLDS
        """,
        "sheets": "PEOPLE read_labelled read_result write_sheet",
        "utility": "measure_helpfulness measure_over_refusal",
    },
)
