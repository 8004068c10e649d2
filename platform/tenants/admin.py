"""Admin pages of sites, credentials and the audit log. A secret is shown once; every action is audited."""

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core import clock
from core.admin_ui import theme
from core.admin_ui.model_admin import BoundedModelAdmin, PeriodFilter, ReadOnlyAdmin, format_public_id
from core.humanize import format_age, format_moment
from core.ids import InvalidId, from_public
from tenants import cached_lookups
from tenants.audit import audit
from tenants.credentials import IssuedCredential, create_site, issue, revoke, rotate
from tenants.errors import ProvisioningError
from tenants.models import AuditEntry, Credential, CredentialKind, Site
from tenants.rate_limit_admin import LimitAdmin
from tenants.site_form import SiteForm
from tenants.staff import actor_of

__all__ = ["AuditAdmin", "CredentialAdmin", "LimitAdmin", "SiteAdmin"]

#: How long the old credentials stay valid when an operator rotates; `manage.py rotate_credential` takes any time.
ROTATION_OVERLAP = timedelta(hours=24)
CREDENTIAL_STATE_COLORS = {"live": "success", "ending": "warning", "expired": "", "revoked": "danger"}


def credential_state(credential: Credential) -> tuple[str, str]:
    """Return the state of a credential now, and its text."""
    if credential.revoked_at:
        return "revoked", f"Revoked {format_moment(credential.revoked_at)}"
    if credential.expires_at is None:
        return "live", "Live"
    if credential.expires_at <= clock.now():
        return "expired", f"Expired {format_moment(credential.expires_at)}"
    return "ending", f"Live until {format_moment(credential.expires_at)}"


# Sites


class CredentialInline(theme.TabularInline[Credential, Site]):
    """The credentials that the site can authenticate with. The secrets themselves were shown once."""

    model = Credential
    verbose_name_plural = "Credentials (to issue or rotate one, select the site in the list of sites)"
    fields = readonly_fields = ("public_id", "kind", "shown_hint", "shown_state", "created_at")
    extra = 0
    can_delete = False
    show_change_link = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Credential]:
        return super().get_queryset(request).defer("secret", "key_hash")

    def has_add_permission(self, request: HttpRequest, obj: Site | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Site | None = None) -> bool:
        return False

    @admin.display(description="Last characters")
    def shown_hint(self, credential: Credential) -> str:
        return f"…{credential.hint}"

    @admin.display(description="State")
    def shown_state(self, credential: Credential) -> str:
        return credential_state(credential)[1]


@admin.register(Site)
class SiteAdmin(BoundedModelAdmin[Site]):
    form = SiteForm
    list_display = ("name", "slug", "shown_id", "shown_state", "secrets", "keys", "shown_age")
    list_filter = (("is_active", theme.BooleanFilter),)
    sortable_by = ("name", "slug")
    search_fields = ("name", "slug")
    search_help_text = "site_…, name or slug"
    actions = ("issue_secret", "issue_key", "rotate_secret", "rotate_key")
    fieldsets = (
        (None, {"fields": ("name", "slug", "is_active")}),
        ("Access", {"fields": ("ip_allowlist", "origins", "accepts_legacy_signature")}),
        ("Models", {"fields": ("allowed_models",)}),
        ("Jobs", {"fields": ("max_running_jobs", "retention_days")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Site]:
        def live(kind: CredentialKind) -> Count:
            revoked, expired = Q(credentials__revoked_at=None), Q(credentials__expires_at__lte=clock.now())
            return Count("credentials", filter=Q(credentials__kind=kind) & revoked & ~expired)

        counts = {"secrets": live(CredentialKind.SIGNING_SECRET), "keys": live(CredentialKind.API_KEY)}
        return super().get_queryset(request).annotate(**counts)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Site], search_term: str
    ) -> tuple[QuerySet[Site], bool]:
        try:
            return queryset.filter(id=from_public(Site.ID_PREFIX, search_term.strip())), False
        except InvalidId:
            return super().get_search_results(request, queryset, search_term)

    def get_fieldsets(self, request: HttpRequest, obj: Site | None = None) -> Any:
        if obj is None:
            return self.fieldsets
        return ((None, {"fields": ("public_id", "created_at")}), *self.fieldsets)

    def get_readonly_fields(self, request: HttpRequest, obj: Site | None = None) -> tuple[str, ...]:
        return () if obj is None else ("public_id", "created_at")

    def get_inlines(self, request: HttpRequest, obj: Site | None) -> list[Any]:
        return [] if obj is None else [CredentialInline]

    def has_delete_permission(self, request: HttpRequest, obj: Site | None = None) -> bool:
        # Deleting it would delete its jobs and usage; deactivate it instead.
        return False

    def save_model(self, request: HttpRequest, obj: Site, form: Any, change: bool) -> None:
        """Store the site. A new one's secret and key are shown once, now. Runs in Django's transaction."""
        if change:
            super().save_model(request, obj, form, change)
            facts = {name: [form.initial.get(name), getattr(obj, name)] for name in form.changed_data}
            audit(actor_of(request), "site.change", obj.public_id, obj, facts)
        else:
            created = create_site(obj.name, obj.slug, actor=actor_of(request))
            obj.pk, obj._state.adding = created.site.pk, False
            obj.created_at = created.site.created_at
            super().save_model(request, obj, form, change=True)
            self._show_secret_once(request, created.signing_secret)
            self._show_secret_once(request, created.api_key)
        transaction.on_commit(cached_lookups.clear_caches)

    # The columns

    @admin.display(description="ID", ordering="id")
    def shown_id(self, site: Site) -> SafeString:
        return format_public_id(site.public_id)

    @theme.badge_column("State", {True: "success"})
    def shown_state(self, site: Site) -> tuple[bool, str]:
        return site.is_active, "Active" if site.is_active else "Inactive"

    @admin.display(description="Live signing secrets")
    def secrets(self, site: Site) -> int:
        return int(getattr(site, "secrets", 0))

    @admin.display(description="Live API keys")
    def keys(self, site: Site) -> int:
        return int(getattr(site, "keys", 0))

    @admin.display(description="Age")
    def shown_age(self, site: Site) -> SafeString:
        return format_html(
            '<span title="{}">{}</span>', format_moment(site.created_at), format_age(site.created_at, clock.now())
        )

    # What can be done

    @admin.action(description="Issue another signing secret", permissions=["change"])
    def issue_secret(self, request: HttpRequest, queryset: QuerySet[Site]) -> None:
        self._issue_for_each(request, queryset, CredentialKind.SIGNING_SECRET, None)

    @admin.action(description="Issue another API key", permissions=["change"])
    def issue_key(self, request: HttpRequest, queryset: QuerySet[Site]) -> None:
        self._issue_for_each(request, queryset, CredentialKind.API_KEY, None)

    @admin.action(description="Rotate the signing secret (old ones expire in 24 hours)", permissions=["change"])
    def rotate_secret(self, request: HttpRequest, queryset: QuerySet[Site]) -> None:
        self._issue_for_each(request, queryset, CredentialKind.SIGNING_SECRET, ROTATION_OVERLAP)

    @admin.action(description="Rotate the API key (old ones expire in 24 hours)", permissions=["change"])
    def rotate_key(self, request: HttpRequest, queryset: QuerySet[Site]) -> None:
        self._issue_for_each(request, queryset, CredentialKind.API_KEY, ROTATION_OVERLAP)

    def _issue_for_each(
        self, request: HttpRequest, sites: QuerySet[Site], kind: CredentialKind, overlap: timedelta | None
    ) -> None:
        """Issue a credential for each site; with an overlap, those in use expire after it."""
        actor = actor_of(request)
        for site in sites:
            try:
                issued = issue(site, kind, actor=actor) if overlap is None else rotate(site, kind, overlap, actor=actor)
            except ProvisioningError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self._show_secret_once(request, issued)

    def _show_secret_once(self, request: HttpRequest, issued: IssuedCredential) -> None:
        text = "{} of {} (shown only once): {}"
        kind = issued.credential.get_kind_display()
        shown = format_html(text, kind, issued.credential.site.slug, issued.secret)
        self.message_user(request, shown, messages.WARNING)


# Credentials


@admin.register(Credential)
class CredentialAdmin(ReadOnlyAdmin[Credential]):
    list_display = ("credential", "kind", "site", "shown_hint", "shown_state", "shown_age")
    list_filter = (("site", theme.RelatedFilter), ("kind", theme.ChoiceFilter))
    list_select_related = ("site",)
    sortable_by = ("credential",)
    search_fields = ("hint", "site__slug")
    search_help_text = "key_…, last characters of the credential, or site"
    fields = ("public_id", "site", "kind", "shown_hint", "created_at", "expires_at", "revoked_at")
    readonly_fields = ("public_id", "shown_hint")
    actions = ("revoke_selected",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Credential]:
        # The page must work even when an encryption key is lost: credentials are revoked here.
        return super().get_queryset(request).defer("secret", "key_hash")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Credential], search_term: str
    ) -> tuple[QuerySet[Credential], bool]:
        try:
            return queryset.filter(id=from_public(Credential.ID_PREFIX, search_term.strip())), False
        except InvalidId:
            return super().get_search_results(request, queryset, search_term)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """A credential is never edited; the permission to change credentials is the one to revoke them."""
        return request.user.has_perm("tenants.change_credential")

    @admin.display(description="Credential", ordering="id")
    def credential(self, credential: Credential) -> SafeString:
        return format_public_id(credential.public_id)

    @admin.display(description="Last characters")
    def shown_hint(self, credential: Credential) -> str:
        return f"…{credential.hint}"

    @theme.badge_column("State", CREDENTIAL_STATE_COLORS)
    def shown_state(self, credential: Credential) -> tuple[str, str]:
        return credential_state(credential)

    @admin.display(description="Age")
    def shown_age(self, credential: Credential) -> SafeString:
        at = credential.created_at
        return format_html('<span title="{}">{}</span>', format_moment(at), format_age(at, clock.now()))

    @admin.action(description="Revoke (within a second, permanently)", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[Credential]) -> None:
        revoked = sum(revoke(credential, actor=actor_of(request)) for credential in queryset.select_related("site"))
        self.message_user(request, f"Revoked {revoked} credential{'' if revoked == 1 else 's'}.")


# The audit log


@admin.register(AuditEntry)
class AuditAdmin(ReadOnlyAdmin[AuditEntry]):
    list_display = ("shown_at", "actor", "action", "shown_subject", "site", "address")
    list_filter = (("at", PeriodFilter), ("site", theme.RelatedFilter))
    list_select_related = ("site",)
    sortable_by = ()
    search_fields = ("actor", "action", "subject")
    search_help_text = "actor, action, or ID (site_…, key_…, job_…)"
    fields = ("at", "actor", "address", "action", "subject", "site", "details")

    @admin.display(description="Time", ordering="id")
    def shown_at(self, entry: AuditEntry) -> str:
        return format_moment(entry.at)

    @admin.display(description="Subject")
    def shown_subject(self, entry: AuditEntry) -> SafeString:
        return format_public_id(entry.subject)
