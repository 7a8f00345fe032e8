"""How safe a model is and what that costs it: shares and means, with their intervals."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "asr": "measure_asr measure_asr_at rescore",
        "asr_result": "AsrResult compare",
        "drift": "Drift measure_drift Reference",
        "gsm8k": "measure_gsm8k read_gsm8k",
        "intervals": "Mean Share share_fields",
        "questions": "KINDS measure Questions sandbox_questions task_prompts TOKENS",
        "utility": "measure_helpfulness measure_over_refusal",
    },
)
