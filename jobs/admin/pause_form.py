"""Pausing something by hand: a site, a queue, or a batch, and exactly one of them."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from core.admin_ui import theme
from jobs.batches.read import find_batch_of_any_site
from jobs.models import Batch, Pause
from jobs.pauses import MAX_REASON_LENGTH, PAUSABLE, PauseScope, QueueName, is_paused_by_operator

QUEUE_NAMES = (
    ("", "–"),
    (QueueName.DEFAULT, "default: jobs that come one by one"),
    (QueueName.BATCH, "batch: the requests of all batches"),
)


class PauseForm(forms.ModelForm):  # type: ignore[type-arg] # generic in the stubs only
    queue = forms.ChoiceField(label="Or a queue", choices=QUEUE_NAMES, required=False, widget=theme.Select)
    batch_id = forms.CharField(label="Or a batch", required=False, help_text="batch_…", widget=theme.TextInput)
    reason = forms.CharField(
        required=False,
        max_length=MAX_REASON_LENGTH,
        help_text="Shown to other operators. Running jobs finish; new jobs wait.",
        widget=theme.TextInput,
    )

    class Meta:
        model = Pause
        fields = ("site", "reason")

    #: What is to be paused, once the form is valid.
    scope: PauseScope

    def clean_queue(self) -> QueueName | None:
        return QueueName(self.cleaned_data["queue"]) if self.cleaned_data["queue"] else None

    def clean_batch_id(self) -> Batch | None:
        given = self.cleaned_data["batch_id"]
        if not given:
            return None
        batch = find_batch_of_any_site(given)
        if batch is None:
            raise ValidationError("There is no such batch.")
        # Locked, so that it is not over until the pause is written.
        state = Batch.objects.select_for_update(no_key=True).get(id=batch.id).state
        if state not in PAUSABLE:
            raise ValidationError(f"It cannot be paused any more: it is {state}.")
        return batch

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        given: dict[str, PauseScope] = {
            name: cleaned[name] for name in ("site", "queue", "batch_id") if cleaned.get(name) is not None
        }
        if self.errors:
            return cleaned
        if len(given) != 1:
            raise ValidationError("Choose a site, a queue, or a batch: exactly one of them.")
        ((name, self.scope),) = given.items()
        if is_paused_by_operator(self.scope):
            self.add_error(name, "It is paused already.")
        return cleaned
