"""Which conformance tests a program cannot act out through the public client, or not over partitions, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_CLOSED: Final = "calls after a close, which the client itself refuses (C25)"
_FORGES: Final = "locks that were forged or shown at the wrong place"
_CHECKED: Final = "requests that the client itself refuses, or reads otherwise"
_NAMES: Final = "a namespace that the test knows by name"
_ELSEWHERE: Final = "options that the client offers only where they mean something"
_INSIDE: Final = "the numbers of queues in storage, and revisions chosen by the test"
LEFT_OUT: Final[Mapping[str, str]] = {
    "test_a_forged_token_settles_nothing": _FORGES,
    "test_a_receive_of_an_impossible_number_is_refused": _CHECKED,
    "test_a_token_of_the_queue_is_worth_nothing_in_its_dead_letter_store": _FORGES,
    "test_a_waiting_receive_is_told_when_its_session_is_closed": _CLOSED,
    "test_add_12_a_re_created_queue_shares_nothing_with_its_predecessor": _INSIDE,
    "test_an_empty_batch_is_refused": _CHECKED,
    "test_an_unknown_choice_is_refused": _CHECKED,
    "test_an_update_of_an_older_revision_is_refused": _INSIDE,
    "test_dlq_4_receiving_dead_letters_with_a_session_is_refused": _FORGES,
    "test_ent_7_a_second_queue_of_the_same_name_is_refused": _NAMES,
    "test_every_call_after_a_close_is_refused_with_its_cause": _CLOSED,
    "test_lck_5_settling_in_a_plain_queue_takes_no_session": _FORGES,
    "test_lck_5_settling_in_a_session_queue_needs_the_session": _FORGES,
    "test_options_of_another_kind_of_job_are_refused": _ELSEWHERE,
    "test_race_7_a_message_never_goes_to_the_receive_of_a_closed_holder": _CLOSED,
    "test_rcv_3_a_receive_with_another_queue_s_session_is_refused": _FORGES,
    "test_ses_19_renewing_a_message_of_a_session_is_refused": _CHECKED,
    "test_ses_21_a_session_that_nobody_ever_accepted_is_refused": _FORGES,
    "test_ses_21_a_token_that_was_never_granted_is_refused_with_its_cause": _FORGES,
    "test_ses_3_a_lock_of_one_queue_is_worth_nothing_in_another": _FORGES,
    "test_snd_4_sending_to_a_missing_queue_is_not_found": _NAMES,
    "test_snd_8_a_message_without_session_is_refused_by_a_session_queue": _NAMES,
}

LEFT_OUT_OF_SPREAD: Final[Mapping[str, str]] = {
    "test_ses_13_ties_go_to_the_oldest_active_message": "an order of sessions in each partition only (ADD-1)",
}
