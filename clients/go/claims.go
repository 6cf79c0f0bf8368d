package tokensidecar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// encodeClaims gives the bytes of claims_json: raw JSON as it is, anything else as encoding/json writes it. Empty: no claims.
func encodeClaims(claims any) (string, error) {
	if raw, ok := claims.(json.RawMessage); ok {
		return string(raw), nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // the token carries these bytes: no \u003c in it for the sake of web pages
	if err := encoder.Encode(claims); err != nil {
		return "", refused("claims_json", err.Error())
	}
	encoded := strings.TrimSuffix(text.String(), "\n")
	if encoded == "null" { // no claims, and nil maps and pointers
		return "", nil
	}
	return encoded, nil
}

// decodeClaims reads claims into a struct or a map, and refuses what encoding/json would read wrongly without a word.
func decodeClaims(claims json.RawMessage, into any) error {
	if err := requireDistinctNames(json.NewDecoder(bytes.NewReader(claims))); err != nil {
		return fmt.Errorf("tokensidecar: claims: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(claims))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("tokensidecar: claims: %w", err)
	}
	return nil
}

// requireDistinctNames reads one value and refuses an object with two names that differ in case only. encoding/json
// matches the names of a struct's fields without regard to case: of {"role":"guest","ROLE":"admin"} it takes the last.
func requireDistinctNames(decoder *json.Decoder) error {
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]string{}
	for decoder.More() {
		if open == '{' {
			token, err := decoder.Token()
			if err != nil {
				return err
			}
			name, _ := token.(string) // the name of a member is nothing else
			folded := strings.ToLower(strings.ToUpper(name))
			if other, ok := seen[folded]; ok {
				return fmt.Errorf("%q and %q differ in case only; read ClaimsJSON itself", other, name)
			}
			seen[folded] = name
		}
		if err := requireDistinctNames(decoder); err != nil {
			return err
		}
	}
	_, err = decoder.Token() // the closing bracket
	return err
}
