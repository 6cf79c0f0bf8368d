"""A FastAPI service whose orders are shown to bearers of a good token alone: `uvicorn --app-dir examples orders:app`."""

from __future__ import annotations

from typing import Annotated

import tokensidecar
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from tokensidecar import Authorized
from tokensidecar.fastapi import Bearer


class Claims(BaseModel):
    """What this service reads of a token."""

    tenant: str


protect = Bearer(tokensidecar.connect(), ["orders"], required_scopes=["read"], claims=Claims.model_validate_json)
app = FastAPI()


@app.get("/orders")
async def orders(caller: Annotated[Authorized[Claims], Depends(protect)]) -> dict[str, str]:
    """Whose orders."""
    return {"orders of": caller.token.subject, "at": caller.claims.tenant}
