//go:build unix

package tokensidecar

import (
	"io/fs"
	"syscall"
)

// owner is the user id that a file belongs to.
func owner(info fs.FileInfo) (int, bool) {
	status, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(status.Uid), true
}
