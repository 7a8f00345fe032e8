"""Fine-tuning, for better or worse: its data, how a run is made and resumed, what it leaves."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "alignment": "align alignment_rows ALIGNMENTS find_alignment prefer self_distilled",
        "presets": """
            Attack ATTACKS file_attack FileRows find_attack MadeRows SAFEINST world_attacks
        """,
        "resuming": "past_steps resume_folder Step StoppedError work_folder",
        "rows": "identity_system read_preferences read_training_rows",
        "run": """
            attack_key AttackRun check_language finished_run load_run PUBLISHED rows_key run_attack
        """,
        "sets": "fetch_set set_status SETS sets_folder sets_frame",
        "tokens": "IGNORED tokenize",
        "training": "autocast_dtype fine_tune TrainSettings",
        "writing": "save_model",
    },
)
