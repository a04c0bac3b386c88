# SPDX-License-Identifier: MIT
# Shared by the commands in this folder: find what is missing, install it, build.

# need GROUP…: installs the packages of these groups that are not there yet.
need() {
	local group missing=() package
	for group in "$@"; do
		for package in $(sed -n "s/^$group //p" tests/packages); do
			dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null |
				grep -qx installed || missing+=("$package")
		done
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "Installing ${missing[*]}"
	local root=()
	[ "$(id -u)" = 0 ] || root=(sudo)
	"${root[@]}" apt-get update -q
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# build FOLDER OPTION…: configures the folder once and compiles. The options are kept with
# it: others than before mean a new one.
build() {
	local folder=$1
	shift
	if ! [ -e "$folder/build.ninja" ] || [ "$(cat "$folder/options" 2>/dev/null)" != "$*" ]; then
		rm -rf "$folder"
		meson setup "$folder" "$@"
		echo "$*" > "$folder/options"
	fi
	meson compile -C "$folder"
}
