{{/* Values that are valid alone, but inconsistent. Called once, by the settings. */}}
{{- define "tally.checks" -}}
{{- $v := .Values -}}
{{- include "tally.checkNames" . -}}
{{- include "tally.checkExtras" (list . "coordinator") -}}
{{- include "tally.checkExtras" (list . "worker") -}}
{{- include "tally.checkResources" . -}}
{{- include "tally.checkCron" . -}}
{{- include "tally.checkDataset" . -}}
{{- include "tally.checkCertificates" . -}}
{{- include "tally.checkPlacement" . -}}
{{- include "tally.checkTraffic" . -}}
{{- include "tally.checkNotifications" . -}}
{{- if and (gt (int $v.coordinator.replicas) 1) (not $v.consul.url) -}}
{{- fail "coordinator.replicas is above 1, and no Consul elects a leader: set consul.url, or coordinator.replicas to 1" -}}
{{- end -}}
{{- $sources := 0 -}}
{{- if $v.storage.existingClaim }}{{ $sources = add1 $sources }}{{ end -}}
{{- if $v.storage.volume }}{{ $sources = add1 $sources }}{{ end -}}
{{- if include "tally.claims" . }}{{ $sources = add1 $sources }}{{ end -}}
{{- if and (eq (int $sources) 0) (not (include "tally.isInStore" $v.coordinator.stateDir)) -}}
{{- fail "there is no storage: set storage.existingClaim to a ReadWriteMany claim with your tables, storage.volume to another source, or storage.claim.create to null; or, with tables in an object store, coordinator.stateDir to a URL such as s3://bucket/tally" -}}
{{- end -}}
{{- if gt (int $sources) 1 -}}
{{- fail "storage has more than one source: set only one of storage.existingClaim, storage.volume and storage.claim.create" -}}
{{- end -}}
{{- $drain := int $v.worker.drainTimeoutSeconds -}}
{{- if lt (int (include "tally.grace" .)) (add $drain 10 | int) -}}
{{- fail (printf "worker.terminationGracePeriodSeconds is %s, and a drain may take %d s and needs 10 s to end: set it to at least %d, or leave it null" (include "tally.grace" .) $drain (add $drain 10)) -}}
{{- end -}}
{{- $least := mul (int $v.worker.slots) 133 -}}
{{- if lt (int $v.worker.memoryMiB) (int $least) -}}
{{- fail (printf "worker.memoryMiB is %d, and %d slots need %d: give more memory, or fewer worker.slots" (int $v.worker.memoryMiB) (int $v.worker.slots) (int $least)) -}}
{{- end -}}
{{- if ne $v.autoscaling.mode "none" -}}
{{- if gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas is %d, above autoscaling.maxReplicas, %d: change one of them" (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.autoscaling.mode "hpa") (eq (int $v.autoscaling.minReplicas) 0) -}}
{{- fail "autoscaling.minReplicas is 0, and an HPA alone never starts the first worker: set it to 1, or autoscaling.mode to keda" -}}
{{- end -}}
{{- with $v.schedule.date -}}
{{- if ne . (toDate "20060102" . | date "20060102") -}}
{{- fail (printf "schedule.date is %s, and there is no such day: write YYYYMMDD, or leave it empty" .) -}}
{{- end -}}
{{- end -}}
{{- if $v.schedule.enabled -}}
{{- range $key, $place := include "tally.schedulePlaces" . | fromJson -}}
{{- if and $place (not (include "tally.isInStore" $place)) (eq (int $sources) 0) -}}
{{- fail (printf "schedule.%s is a path, and there is no storage that holds it: set storage.existingClaim, or write a URL such as s3://bucket/folder" $key) -}}
{{- end -}}
{{- if not $place -}}
{{- fail (printf "schedule.enabled is true, and schedule.%s is empty: set it to a path below storage.mountPath, or a URL" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.consul.url (hasPrefix "http://" $v.consul.url) (or $v.consul.caSecret.name $v.consul.clientCertificateSecret.name) -}}
{{- fail "consul.url begins with http://, and certificates for it are set: write https://, or remove consul.caSecret and consul.clientCertificateSecret" -}}
{{- end -}}
{{- if and (not $v.consul.url) (or $v.consul.tokenSecret.name $v.consul.caSecret.name $v.consul.clientCertificateSecret.name) -}}
{{- fail "secrets for Consul are set, and consul.url is empty: set it, or remove them" -}}
{{- end -}}
{{- if and (hasPrefix "http://" $v.objectStore.endpoint) $v.objectStore.caSecret.name -}}
{{- fail "objectStore.endpoint begins with http://, and objectStore.caSecret is set, which only https:// has a use for: write https://, or remove objectStore.caSecret" -}}
{{- end -}}
{{- if eq $v.tls.mode "secrets" -}}
{{- $needed := list "coordinator" "worker" "operator" -}}
{{- if eq $v.autoscaling.mode "keda" }}{{ $needed = append $needed "reader" }}{{ end -}}
{{- range $role := $needed -}}
{{- if not (get $v.tls (printf "%sSecret" $role)) -}}
{{- fail (printf "tls.mode is secrets, and tls.%sSecret is empty: name a secret of type kubernetes.io/tls with ca.crt" $role) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.tls.mode "certManager") (not $v.tls.certManager.issuerRef.name) -}}
{{- fail "tls.mode is certManager, and tls.certManager.issuerRef.name is empty: name an issuer" -}}
{{- end -}}
{{- if and (eq $v.tls.mode "none") (or $v.tls.tokensSecret.name $v.tls.rolesConfigMap.name) -}}
{{- fail "tls.mode is none, and tokens or roles are set, which go over TLS only: set tls.mode, or remove them" -}}
{{- end -}}
{{- range $component := list "coordinator" "worker" -}}
{{- $own := get $v $component -}}
{{- $port := ternary $v.coordinator.service.port $v.worker.port (eq $component "coordinator") -}}
{{- if eq (int $port) (int $own.httpPort) -}}
{{- fail (printf "%s.httpPort is %d, which is its other port too: set another" $component (int $port)) -}}
{{- end -}}
{{- end -}}
{{- include "tally.checkStorage" . -}}
{{- include "tally.checkClaim" . -}}
{{- $state := trimPrefix "file://" (include "tally.stateDir" .) -}}
{{- if and (hasPrefix "/" $state) (not (include "tally.isBelow" (list $state $v.storage.mountPath))) -}}
{{- fail (printf "coordinator.stateDir is %s, which is not below storage.mountPath, %s: a new pod would not find it" (include "tally.stateDir" .) $v.storage.mountPath) -}}
{{- end -}}
{{- end -}}
