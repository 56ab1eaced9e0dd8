"""Who may see the page, and what a browser may do with it.

An app that is mounted in Airflow's has no authentication of its own, so every route asks Airflow: whoever may see its
assets may see the page. Anyone may read the style sheet, the script and the icons. The Content-Security-Policy
admits nothing but the page's own style sheet and script: whatever a repository holds, it runs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request, Response

POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def may_see() -> Callable[..., None]:
    """Return the dependency of every route but those of the style sheet, the script and the icons.

    It answers 401 without a valid login, and 403 to users who may not see assets.
    """
    from airflow.api_fastapi.core_api.security import requires_access_asset

    return requires_access_asset(method="GET")


async def with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Add the headers to each response."""
    response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
