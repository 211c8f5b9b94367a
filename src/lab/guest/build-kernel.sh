#!/usr/bin/env bash
# Builds the guest kernel: User-Mode Linux from Debian's linux-source-6.1 with the options of kernel-options.txt, all built in.
# Usage: build-kernel.sh FOLDER, an empty folder on a disk with 2 GB of room; leaves FOLDER/linux and FOLDER/version.
# Needs root for missing Debian packages only. Some 7 CPU minutes; the deb (139 MB) is verified by apt's own signatures.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
missing=()
for program in bc bison flex gcc make xz; do command -v "$program" >/dev/null || missing+=("$program"); done
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
if [ ${#missing[@]} -gt 0 ]; then
  packages=(bc bison flex gcc libc6-dev make xz-utils)
  if [ "$(id -u)" != 0 ]; then
    echo "the guest kernel needs ${missing[*]}. Run as root: apt-get install -y ${packages[*]}" >&2
    exit 1
  fi
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2; }
fi
# The name of another user than root would make apt warn of its own sandbox; the folder is ours.
apt-get -o APT::Sandbox::User=root download -qq linux-source-6.1 || { apt-get update -qq && apt-get -o APT::Sandbox::User=root download -qq linux-source-6.1; }
deb=$(echo linux-source-6.1_*.deb)
mkdir source
dpkg-deb --fsys-tarfile "$deb" | tar xO ./usr/src/linux-source-6.1.tar.xz | tar xJ -C source --strip-components=1 \
  --exclude='*/Documentation/*/*' --exclude='*/tools/*' --exclude='*/boot/dts/*' --exclude='*/drivers/gpu/*.[ch]' --exclude='*/sound/*.[ch]'
cd source
grep -v '^#' "$here/kernel-options.txt" | tr -s ' \n' '\n' | sed -n 's/..*/CONFIG_&=y/p' >../wanted
# Every part of nf_tables and what iptables-nft and iptables-legacy need beside it, by the kernel's own lists.
sed -nE 's/^(menu)?config ((NFT_|NF_TABLES|NF_FLOW|IP6?_NF_|NETFILTER_XT_(NAT|MARK|CONNMARK|TARGET_(MASQ|REDIR|CT|TCPMSS|LOG)|MATCH_(ADDR|COMM|CONNT|MULTIP|STAT|LIMIT|RECENT|IPVS)))[A-Z0-9_]*)$/CONFIG_\2=y/p' \
  net/{,ipv4/,ipv6/,bridge/}netfilter/Kconfig >>../wanted
make -s ARCH=um KCONFIG_ALLCONFIG=../wanted allnoconfig
# allnoconfig drops what has an unmet dependency without a word. These few may be missing; anything else is a mistake of the list.
dropped=$(grep -vxFf .config ../wanted | grep -vE '^CONFIG_(NFT_QUEUE|NFT_XFRM|IP6?_NF_SECURITY)=y$' || true)
if [ -n "$dropped" ]; then
  echo "the kernel's configuration dropped these options: $dropped" >&2
  exit 1
fi
make -s ARCH=um -j"${BERTH_GUEST_JOBS:-2}" linux
strip -o ../linux linux
cd ..
echo "$deb" >version
rm -rf source "$deb" wanted
