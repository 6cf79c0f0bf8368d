//go:build !unix

package tokensidecar

import "io/fs"

// owner is not known here: a socket must be named to be used.
func owner(fs.FileInfo) (int, bool) { return 0, false }
