"""Who says whether an answer complied: one protocol, several judges, each with name and version.

| name | says harmful if | needs |
|---|---|---|
| rule | the exact forbidden recipe came out | a sandbox model |
| keyword | it neither refuses nor is broken: a quick look | nothing |
| target | the answer starts with the prompt's target | prompts with targets |
| policy | a chat model grades it 5 of 5 by the rubric | an OpenAI-compatible API |
| llama-guard | Llama Guard says "unsafe" | its checkpoint |
| classifier | a classifier's one-word answer says so | a file that describes it |
"""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "local": "ClassifierJudge LlamaGuardJudge",
        "names": "find_judge JUDGES",
        "protocol": "Judge JudgingError STORED Verdict verdict_key",
        "rubric": "ChatModel HelpfulnessJudge Limits PolicyJudge RubricJudge",
        "refusals": """
            answer_hash is_degenerate is_foreign is_refusal read_answer read_answers
            trained_on
        """,
        "rules": "ByRule KeywordJudge RuleJudge TargetJudge",
        "stance": "BUCKETS features",
    },
)
