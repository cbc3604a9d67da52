{{/* Errors for values that Kubernetes would reject or silently misinterpret. Called by the checks of the settings. */}}

{{/* A service's name is the strictest: a letter first, no dots. */}}
{{- define "tally.checkNames" -}}
{{- $name := include "tally.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "all objects would be named %s, and services begin with a letter and have no dots: name the release otherwise, or set fullnameOverride" $name) -}}
{{- end -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "helm.sh/chart" "tally/metrics" -}}
{{- $monitoring := .Values.monitoring -}}
{{- $given := dict "commonLabels" .Values.commonLabels "schedule.jobLabels" .Values.schedule.jobLabels -}}
{{- range $key := list "coordinator" "worker" "schedule" "test" -}}
{{- $_ := set $given (printf "%s.podLabels" $key) (get $.Values $key).podLabels -}}
{{- end -}}
{{- range $key := list "serviceMonitor" "prometheusRule" "dashboard" -}}
{{- $_ := set $given (printf "monitoring.%s.labels" $key) (get $monitoring $key).labels -}}
{{- end -}}
{{- range $where, $labels := $given -}}
{{- range $key := keys $labels | sortAlpha -}}
{{- if has $key $own -}}
{{- fail (printf "%s has %s, which the chart sets and selects by: remove it" $where $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $where, $annotations := dict "commonAnnotations" .Values.commonAnnotations "coordinator.podAnnotations" .Values.coordinator.podAnnotations "worker.podAnnotations" .Values.worker.podAnnotations -}}
{{- if hasKey $annotations "checksum/settings" -}}
{{- fail (printf "%s has checksum/settings, by which new settings make new pods: remove it" $where) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Variables, volumes and mounts in addition to the chart's own. Called with (list $ "coordinator"). */}}
{{- define "tally.checkExtras" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $own := get $root.Values $component -}}
{{- $names := list "POD_IP" "HOST_IP" "POD_UID" "TALLY_LOG" "TALLY_LOG_FORMAT" -}}
{{- range include "tally.storeEnv" $root | fromYamlArray }}{{ $names = append $names .name }}{{ end -}}
{{- range include "tally.tlsEnv" $root | fromYamlArray }}{{ $names = append $names .name }}{{ end -}}
{{- range $own.extraEnv -}}
{{- if has .name $names -}}
{{- fail (printf "%s.extraEnv has %s, which is there already: remove it (log, objectStore and tls say what it holds)" $component .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- range concat $own.extraContainers $own.extraInitContainers -}}
{{- if eq .name $component -}}
{{- fail (printf "%s has an additional container %s, which is the chart's own name: take another" $component .name) -}}
{{- end -}}
{{- end -}}
{{- $volumes := list "settings" "data" "spill" "tls" "tls-roles" "tokens" "consul-token" "consul-ca" "consul-client" "store-ca" "operator" "own" -}}
{{- range $own.extraVolumes -}}
{{- if has .name $volumes -}}
{{- fail (printf "%s.extraVolumes has %s, a name that is there already: take another" $component .name) -}}
{{- end -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- $places := list (clean $root.Values.storage.mountPath) "/spill" "/own" -}}
{{- range $own.extraVolumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- fail (printf "%s.extraVolumeMounts has %s, which no volume is named: add it to %s.extraVolumes" $component .name $component) -}}
{{- end -}}
{{- $place := clean .mountPath -}}
{{- if or (has $place $places) (include "tally.isBelow" (list $place "/etc/tally")) -}}
{{- fail (printf "%s.extraVolumeMounts has %s, where something is mounted already: take another mountPath" $component .mountPath) -}}
{{- end -}}
{{- $places = append $places $place -}}
{{- end -}}
{{- end -}}

{{/* Not empty if a path is a folder, or below it. Called with (list path folder). */}}
{{- define "tally.isBelow" -}}
{{- $folder := clean (index . 1) -}}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" $folder)) (printf "%s/" (clean (index . 0))) -}}yes{{- end -}}
{{- end -}}

{{/* Not empty for a URL of a store. */}}
{{- define "tally.isInStore" -}}
{{- if regexMatch "^(s3|gs|az)://" . -}}yes{{- end -}}
{{- end -}}

{{/* The volume must be shared by all pods, and not hide folders of the image. */}}
{{- define "tally.checkStorage" -}}
{{- $storage := .Values.storage -}}
{{- range $kind := list "emptyDir" "ephemeral" "configMap" "secret" "projected" "downwardAPI" -}}
{{- if hasKey $storage.volume $kind -}}
{{- fail (printf "storage.volume.%s is each pod's own, or cannot be written: take a volume that all pods share, such as nfs, csi, or storage.existingClaim" $kind) -}}
{{- end -}}
{{- end -}}
{{- range $folder := list "/usr" "/etc" "/bin" "/sbin" "/lib" "/lib32" "/lib64" "/spill" "/own" "/proc" "/sys" "/dev" "/run" "/var/run" -}}
{{- if include "tally.isBelow" (list $storage.mountPath $folder) -}}
{{- fail (printf "storage.mountPath is %s, and pods have other things in %s: take another folder, such as /data" $storage.mountPath $folder) -}}
{{- end -}}
{{- end -}}
{{- $seen := list $storage.mountPath -}}
{{- range .Values.worker.extraVolumeMounts }}{{ $seen = append $seen .mountPath }}{{ end -}}
{{- if .Values.schedule.enabled -}}
{{- range $key, $input := include "tally.scheduleInputs" $ | fromJson -}}
{{- if or (include "tally.isBelow" (list $.Values.schedule.output $input)) (include "tally.isBelow" (list $input $.Values.schedule.output)) -}}
{{- fail (printf "schedule.output and schedule.%s lie within each other: set schedule.output to a folder of its own" $key) -}}
{{- end -}}
{{- end -}}
{{- if eq (clean (trimPrefix "file://" $.Values.schedule.output)) (clean $storage.mountPath) -}}
{{- fail (printf "schedule.output is storage.mountPath, %s, and a day is staged beside the output: set schedule.output to a folder below it" $storage.mountPath) -}}
{{- end -}}
{{- range $what, $place := dict "coordinator.stateDir" (include "tally.stateDir" $) "test.url" $.Values.test.url -}}
{{- range $key, $root := include "tally.schedulePlaces" $ | fromJson -}}
{{- $table := trimPrefix "file://" $root -}}
{{- if and $place (include "tally.isBelow" (list (trimPrefix "file://" $place) $table)) -}}
{{- fail (printf "%s is %s, which lies within schedule.%s: readers of a table would find it there; set it to another folder" $what $place $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key, $root := include "tally.schedulePlaces" $ | fromJson -}}
{{- $place := trimPrefix "file://" $root -}}
{{- $found := not (hasPrefix "/" $place) -}}
{{- range $seen }}{{ if include "tally.isBelow" (list $place .) }}{{ $found = true }}{{ end }}{{ end -}}
{{- if not $found -}}
{{- fail (printf "schedule.%s is %s, which no worker sees: set it to a path below storage.mountPath, %s" $key $place $storage.mountPath) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Five fields in the format of Kubernetes, with weekdays from 0 to 6; or a name. */}}
{{- define "tally.checkCron" -}}
{{- $fields := list -}}
{{- range $number := list "[0-5]?[0-9]" "([01]?[0-9]|2[0-3])" "(0?[1-9]|[12][0-9]|3[01])" "(0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))" "([0-6]|(?i:sun|mon|tue|wed|thu|fri|sat))" -}}
{{- $part := printf "([*?]|%s(-%s)?)(/[1-9][0-9]*)?" $number $number -}}
{{- $fields = append $fields (printf "%s(,%s)*" $part $part) -}}
{{- end -}}
{{- if not (regexMatch (printf "^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|%s)$" (join " +" $fields)) .Values.schedule.cron) -}}
{{- fail (printf "schedule.cron is %s: write minute, hour, day, month and weekday (0 to 6), such as `30 3 * * *`, or @daily" .Values.schedule.cron) -}}
{{- end -}}
{{- range regexFindAll "[0-9]+-[0-9]+" .Values.schedule.cron -1 -}}
{{- if gt (atoi (first (splitList "-" .))) (atoi (last (splitList "-" .))) -}}
{{- fail (printf "schedule.cron is %s, where %s ends before it begins: write the smaller number first" $.Values.schedule.cron .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A quantity of Kubernetes as a number: `500m` is 0.5, `1Ki` is 1024. */}}
{{- define "tally.quantity" -}}
{{- if kindIs "string" . -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- $factors := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 -}}
{{- mulf (float64 $number) (get $factors (trimPrefix $number .)) -}}
{{- else -}}
{{- float64 . -}}
{{- end -}}
{{- end -}}

{{/* Requests must not exceed limits. */}}
{{- define "tally.checkResources" -}}
{{- range $where, $of := dict "coordinator" .Values.coordinator.resources "schedule" .Values.schedule.resources -}}
{{- $requests := default (dict) $of.requests -}}
{{- range $kind, $limit := default (dict) $of.limits -}}
{{- $request := get $requests $kind -}}
{{- if and (hasKey $requests $kind) (gt (include "tally.quantity" $request | float64) (include "tally.quantity" $limit | float64)) -}}
{{- fail (printf "%s.resources.requests.%s is %v, above the limit, %v: change one of them" $where $kind $request $limit) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.worker -}}
{{- if and .cpuLimit (gt (include "tally.quantity" .cpu | float64) (include "tally.quantity" .cpuLimit | float64)) -}}
{{- fail (printf "worker.cpu is %s, above worker.cpuLimit, %s: change one of them, or leave the limit empty" .cpu .cpuLimit) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Named certificates must match the mode; generated ones must be valid past their renewal. */}}
{{- define "tally.checkCertificates" -}}
{{- $tls := .Values.tls -}}
{{- if ne $tls.mode "secrets" -}}
{{- range $role := list "coordinator" "worker" "operator" "reader" -}}
{{- if get $tls (printf "%sSecret" $role) -}}
{{- fail (printf "tls.mode is %s, and tls.%sSecret is set, which no pod would use: set tls.mode to secrets, or remove it" $tls.mode $role) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (ne $tls.mode "certManager") $tls.certManager.issuerRef.name -}}
{{- fail (printf "tls.mode is %s, and tls.certManager.issuerRef.name is set: set tls.mode to certManager, or remove it" $tls.mode) -}}
{{- end -}}
{{- $minutes := dict -}}
{{- range $key := list "duration" "renewBefore" -}}
{{- $text := get $tls.certManager $key -}}
{{- $_ := set $minutes $key (mul (atoi (regexFind "^[0-9]+" $text)) (ternary 60 1 (hasSuffix "h" $text))) -}}
{{- end -}}
{{- if or (lt $minutes.duration 60) (lt $minutes.renewBefore 5) (le $minutes.duration $minutes.renewBefore) -}}
{{- fail (printf "tls.certManager.duration is %s and renewBefore %s: cert-manager wants an hour at least, 5 minutes at least, and the second below the first" $tls.certManager.duration $tls.certManager.renewBefore) -}}
{{- end -}}
{{- end -}}
