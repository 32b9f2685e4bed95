#!/usr/bin/env bash
# A real S3 server from Debian's packages: single-node Ceph with its object gateway on 127.0.0.1.
#   apt-get install -y --no-install-recommends ceph-mon ceph-osd ceph-mgr ceph-common radosgw
#   s3.sh start DIR [PORT] [memory|disk]   prints endpoint and keys; about 12 s. On disk it goes on from what DIR holds
#   s3.sh user DIR NAME                    a user with the keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, without buckets
#   s3.sh stop DIR                         ends the processes that start began
# Bucket names need three characters. If-None-Match: * works; If-Match wants the ETag without quotes.
set -euo pipefail
verb=${1:?start, user or stop} dir=${2:?a folder}
export CEPH_CONF=$dir/ceph.conf

make_user() {  # name, key, secret, how many buckets it may have (-1: none); of one that is there, the keys
  local about=("--uid=$1" "--display-name=$1" "--access-key=$2" "--secret-key=$3" "--max-buckets=$4")
  { radosgw-admin -n client.rgw user create "${about[@]}" || radosgw-admin -n client.rgw user modify "${about[@]}"; } \
    >/dev/null 2>>"$dir/start.log"
}

if [[ $verb == user ]]; then
  make_user "${3:?a name}" "${AWS_ACCESS_KEY_ID:?}" "${AWS_SECRET_ACCESS_KEY:?}" -1
  exit 0
fi

if [[ $verb == stop ]]; then
  for name in rgw mgr osd mon; do
    [[ -f $dir/$name.pid ]] || continue
    pid=$(cat "$dir/$name.pid")
    signal=9  # gateway and manager keep nothing, nor does a store in memory
    [[ $name == osd || $name == mon ]] && grep -qs bluestore "$CEPH_CONF" && signal=15
    kill -$signal "$pid" 2>/dev/null || continue
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
  rm -f "$dir"/*.pid "$dir"/*.asok
  exit 0
fi

port=${3:-8333} store=${4:-memory}
if [[ $store == disk ]]; then
  store="osd objectstore = bluestore"$'\n'"bluestore block size = $((64 << 30))"  # a file with holes: it takes what it holds
  store+=$'\n'"osd memory target = 939524096"
else
  store="osd objectstore = memstore"$'\n'"memstore device bytes = $((2 << 30))"
fi
there=$([[ -d $dir/mon/store.db ]] && echo yes || echo no)
mkdir -p "$dir"/{mon,osd,mgr}
[[ $there == yes ]] && fsid=$(sed -n 's/^fsid = //p' "$CEPH_CONF") || fsid=$(cat /proc/sys/kernel/random/uuid)
cat > "$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon initial members = a
mon host = [v1:127.0.0.1:$((port + 1000))]
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 4096
mon data avail warn = 1
mon data avail crit = 1
$store
osd crush chooseleaf type = 0
run dir = $dir
admin socket = $dir/\$type.\$id.asok
log file = $dir/\$type.\$id.log
mon data = $dir/mon
osd data = $dir/osd
mgr data = $dir/mgr
[mon]
pid file = $dir/mon.pid
[osd]
pid file = $dir/osd.pid
[mgr]
pid file = $dir/mgr.pid
[client.rgw]
pid file = $dir/rgw.pid
rgw frontends = beast endpoint=127.0.0.1:$port
rgw dns name = localhost
CONF
{
  if [[ $there == no ]]; then
    monmaptool --create --addv a "[v1:127.0.0.1:$((port + 1000))]" --fsid "$fsid" "$dir/monmap"
    timeout 60 ceph-mon --mkfs -i a --monmap "$dir/monmap"
  fi
  ceph-mon -i a
  if [[ $there == no ]]; then
    osd=$(timeout 60 ceph osd create)
    timeout 60 ceph-osd -i "$osd" --mkfs
  fi
  # on a loaded machine it may speak before it has heard the monitor's map, and is then refused: "wrong fsid"
  for _ in $(seq 20); do ceph-osd -i 0 && break; sleep 0.5; done
  ceph-mgr -i x
  radosgw -n client.rgw
} >"$dir/start.log" 2>&1
for _ in $(seq 240); do curl -so /dev/null "http://127.0.0.1:$port" && break; sleep 0.25; done
key=${AWS_ACCESS_KEY_ID:-test} secret=${AWS_SECRET_ACCESS_KEY:-testsecret}
make_user admin "$key" "$secret" 1000
echo "AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_ACCESS_KEY_ID=$key AWS_SECRET_ACCESS_KEY=$secret"
