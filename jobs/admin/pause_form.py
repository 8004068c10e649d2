"""The form to pause exactly one of a site, a queue, or a batch."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from core.admin_ui import theme
from jobs.batches.read import find_batch_of_any_site
from jobs.models import Batch, Pause
from jobs.pauses import MAX_REASON_LENGTH, PAUSABLE, PauseScope, QueueName, is_paused_by_operator

QUEUE_NAMES = (
    ("", "–"),
    (QueueName.DEFAULT, "default: single jobs"),
    (QueueName.BATCH, "batch: requests of all batches"),
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

    #: The target, once the form is valid.
    scope: PauseScope

    def clean_queue(self) -> QueueName | None:
        return QueueName(self.cleaned_data["queue"]) if self.cleaned_data["queue"] else None

    def clean_batch_id(self) -> Batch | None:
        batch_id = self.cleaned_data["batch_id"]
        if not batch_id:
            return None
        batch = find_batch_of_any_site(batch_id)
        if batch is None:
            raise ValidationError("This batch does not exist.")
        # Locked, so that it does not end before the pause is written.
        state = Batch.objects.select_for_update(no_key=True).get(id=batch.id).state
        if state not in PAUSABLE:
            raise ValidationError(f"The batch cannot be paused: it is {state}.")
        return batch

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        targets: dict[str, PauseScope] = {
            name: cleaned[name] for name in ("site", "queue", "batch_id") if cleaned.get(name) is not None
        }
        if self.errors:
            return cleaned
        if len(targets) != 1:
            raise ValidationError("Choose exactly one: a site, a queue, or a batch.")
        ((name, self.scope),) = targets.items()
        if is_paused_by_operator(self.scope):
            self.add_error(name, "Already paused.")
        return cleaned
