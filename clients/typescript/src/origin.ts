/** scheme://host, with the port unless it is the scheme's own (RFC 6454). Throws TypeError for what is more than that. */
export function parseOrigin(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (
    !url ||
    url.origin === "null" ||
    text
      .replace(/\/$/, "")
      .slice(url.protocol.length + 2)
      .search(/[/?#@]/) >= 0
  ) {
    throw new TypeError(`${JSON.stringify(text)} is no origin: scheme://host or scheme://host:port`);
  }
  return url.origin;
}
