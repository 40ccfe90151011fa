"""What each route needs, by the route's name. A route that is not here answers 403 to everybody.

After a change, `python -m tests.security.policy_table` writes tests/security/policy.csv anew: look at its difference.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.core.accounts.roles import Role


@dataclass(frozen=True, slots=True)
class Rule:
    """`role`: the least that is enough; None: nobody needs to be known. `person`: somebody who is logged in, no token.

    `changes`: goes into the audit log.
    """

    role: Role | None
    person: bool = False
    changes: bool = False


PUBLIC = Rule(None)
SEE = Rule(Role.VIEWER)
SEE_AS_MEMBER = Rule(Role.MEMBER)
CHANGE = Rule(Role.MEMBER, changes=True)
SEE_AS_ADMIN = Rule(Role.ADMIN)
CHANGE_AS_ADMIN = Rule(Role.ADMIN, changes=True)
SEE_OWN = Rule(Role.VIEWER, person=True)
CHANGE_OWN = Rule(Role.VIEWER, person=True, changes=True)

_NAMES: dict[Rule, str] = {
    PUBLIC: """
        static api_health
        show_login log_in show_setup set_up
    """,
    SEE: """
        openapi
        show_dashboard show_gpu stream_events show_frame search_palette list_all_artifacts
        show_job_logs show_job_config show_job_artifacts
        api_gpu api_events
        list_jobs show_job show_job_overview show_job_samples download_job_log download_job_receipt
        show_comparison show_job_series show_job_readings show_job_marks download_job_series download_job_readings
        api_job_series
        download_job_spec confirm_selection api_job_spec api_import_job
        api_list_samples
        api_list_jobs api_show_job api_job_receipt api_job_autopsy api_job_metrics api_job_logs api_job_states
        api_plan
        show_sweep api_show_sweep
        show_queue api_show_queue
        show_datasets show_dataset_list show_dataset show_xray show_xray_row show_check show_check_result
        api_list_datasets api_show_dataset api_dataset_rows api_show_check api_find_check api_show_preview
        show_models show_model_list show_model show_adapters
        api_list_models api_show_model api_show_model_code
        download_artifact download_file
        api_list_artifacts api_download_artifact api_download_file download download_one
        show_playground show_chat_state show_chat
    """,
    SEE_AS_MEMBER: """
        new_job show_fit show_launch show_sweep_preview export_yaml import_yaml
        show_length_note show_xray_link show_targets show_dataset_notes
    """,
    CHANGE: """
        act_on_selection describe_job api_describe_job
        create_job run_demo_job change_job cancel_job pause_job resume_job save_job sample_job
        retry_job extend_job rerun_job
        merge_job export_job keep_job_checkpoint delete_job_artifact delete_job_files push_job_artifact
        cancel_sweep api_submit_sweep
        api_submit_job api_clone_job api_rerun_job api_change_job api_merge_job api_export_job api_generate
        api_cancel_job api_pause_job api_resume_job api_save_job api_sample_job
        api_retry_job api_extend_job api_move_job
        api_keep_sample api_drop_sample
        api_keep_checkpoint api_delete_artifact api_delete_files api_push_artifact
        pause_all resume_all choose_on_failure move_job act_on_queued_job
        api_set_queue api_pause_queue api_resume_queue
        create_dataset create_hub_dataset import_dataset_again forget_dataset ask_xray ask_for_check cancel_check
        api_add_dataset api_add_hub_dataset api_import_dataset_again api_forget_dataset
        api_check_file api_ask_check api_ask_preview
        create_model import_model_again import_adapter
        api_add_model api_import_adapter
        start_chat ask stop_answer end_chat move_chat_to_cpu keep_sample drop_sample
    """,
    SEE_OWN: """
        show_account
    """,
    CHANGE_OWN: """
        log_out change_password end_login end_all_logins create_token revoke_token
    """,
    SEE_AS_ADMIN: """
        show_users show_audit_log
        show_settings show_notifications api_list_secrets
    """,
    CHANGE_AS_ADMIN: """
        create_user change_role reset_password log_user_out delete_user
        set_notifications send_test_notification remove_notifications
        set_hub_token remove_hub_token api_set_secret api_remove_secret
        allow_model_code withdraw_model_code api_allow_model_code api_withdraw_model_code
    """,
}

POLICY: dict[str, Rule] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
