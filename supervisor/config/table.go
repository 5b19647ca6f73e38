package config

import (
	"slices"
	"strings"
)

// Table lists every directive of a service or socket unit that is known: those
// that are done (Directives, and those of sockets), and those that systemd
// documents in systemd.unit(5), systemd.service(5), systemd.socket(5),
// systemd.exec(5), systemd.kill(5) and systemd.resource-control(5) and that are
// not, with what that means. Each Section has a name once, in the order of the
// sections and then of the alphabet.
func Table() []Directive {
	all := rows()
	order := []string{"Unit", "Service", "Socket", "Install", "X-Supervise"}
	slices.SortStableFunc(all, func(a, b Directive) int {
		if by := slices.Index(order, a.Section) - slices.Index(order, b.Section); by != 0 {
			return by
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all
}

// rows are those of Table in no order.
func rows() []Directive {
	return slices.Concat(
		slices.DeleteFunc(Directives(), func(d Directive) bool { return d.Section == "Socket" }),
		headDirectives(), socketUnitDirectives(), unitWords(), notDone())
}

// unitWords are what the loading of units itself obeys.
func unitWords() []Directive {
	return []Directive{
		{Section: "Service", Name: "Sockets", Arg: "UNIT...", Help: "socket units whose listeners it is lent besides that of its own name", Repeat: true},
		{Section: "Install", Name: "DefaultInstance", Arg: "NAME", Help: "the instance that a template of a directory is started as"},
		{Section: "X-Supervise", Name: "Inherit", Arg: "environment|umask|directory...", Help: "what comes from the supervisor and not from systemd's defaults", Repeat: true},
		{Section: "X-Supervise", Name: "Without", Arg: "DIRECTIVE...|sandbox", Help: "refused directives whose absence is accepted: a warning each", Repeat: true},
		{Section: "X-Supervise", Name: "Start", Arg: "auto|now|on-connection", Help: "whether the service waits for the first connection to one of its sockets"},
	}
}

// oldNames are what systemd still takes for another name.
func oldNames() map[string]string {
	return map[string]string{
		"BindTo": "BindsTo", "StartLimitInterval": "StartLimitIntervalSec", "PropagateReloadTo": "PropagatesReloadTo",
		"PropagateReloadFrom": "ReloadPropagatedFrom", "RequiresOverridable": "Requires", "RequisiteOverridable": "Requisite",
		"ReadWriteDirectories": "ReadWritePaths", "ReadOnlyDirectories": "ReadOnlyPaths", "InaccessibleDirectories": "InaccessiblePaths",
		"MemoryLimit": "MemoryMax", "CPUShares": "CPUWeight", "StartupCPUShares": "StartupCPUWeight", "BlockIOWeight": "IOWeight",
		"StartupBlockIOWeight": "StartupIOWeight", "BlockIODeviceWeight": "IODeviceWeight", "BlockIOReadBandwidth": "IOReadBandwidthMax",
		"BlockIOWriteBandwidth": "IOWriteBandwidthMax", "BlockIOAccounting": "IOAccounting", "OnFailureIsolate": "OnFailureJobMode",
	}
}

// notDone are the directives that the supervisor does not do, by what that
// means.
func notDone() []Directive {
	var all []Directive
	add := func(support Support, section, means, names string) {
		for _, name := range strings.Fields(names) {
			all = append(all, Directive{Section: section, Name: name, Support: support, Means: means, Help: means})
		}
	}
	sandbox := func(means, names string) {
		add(Refused, "Service", means, names)
		for i := range all {
			all[i].Sandbox = all[i].Sandbox || slices.Contains(strings.Fields(names), all[i].Name)
		}
	}

	// Without these a service sees and may do more than its unit allows.
	sandbox("the service would see files, directories and devices that its unit hides or protects", `
		PrivateTmp PrivateDevices ProtectSystem ProtectHome ReadOnlyPaths InaccessiblePaths ReadWritePaths
		ExecPaths NoExecPaths TemporaryFileSystem PrivateMounts ProtectProc ProcSubset DeviceAllow DevicePolicy`)
	sandbox("the service could change what its unit protects of the machine", `
		ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectClock ProtectControlGroups ProtectHostname`)
	sandbox("the service could make system calls that its unit forbids", `
		SystemCallFilter SystemCallArchitectures MemoryDenyWriteExecute RestrictNamespaces RestrictRealtime RestrictSUIDSGID
		RestrictAddressFamilies RestrictFileSystems LockPersonality DelegateNamespaces PrivateBPF LandlockConfig
		BPFDelegateCommands BPFDelegateMaps BPFDelegatePrograms BPFDelegateAttachments`)
	sandbox("the service would share with others what its unit keeps apart", `
		PrivateNetwork PrivateUsers PrivateIPC PrivatePIDs KeyringMode`)
	sandbox("the service could talk to addresses, or bind ports, that its unit forbids", `
		IPAddressAllow IPAddressDeny IPIngressFilterPath IPEgressFilterPath BPFProgram SocketBindAllow SocketBindDeny
		RestrictNetworkInterfaces NFTSet`)
	sandbox("the service would not be confined by the security module", `
		SELinuxContext AppArmorProfile SmackProcessLabel SecureBits`)
	all = append(all, Directive{Section: "Service", Name: "SystemCallErrorNumber", Support: Moot, Means: "belongs to SystemCallFilter="},
		Directive{Section: "Service", Name: "SystemCallLog", Support: Ignored, Means: "system calls are not logged"})

	// Without these it would be another user, or in another place.
	add(Refused, "Service", "the service would run as the user of the supervisor and not as one of its own", "DynamicUser PAMName")
	add(Refused, "Service", "the service would run on other files than its unit says", `
		RootDirectory RootImage RootImageOptions RootImagePolicy RootHash RootHashSignature RootVerity RootEphemeral
		RootDirectoryStartOnly ExtensionDirectories ExtensionImages ExtensionImagePolicy MountImages MountImagePolicy
		BindPaths BindReadOnlyPaths NetworkNamespacePath IPCNamespacePath`)
	add(Refused, "Service", "the service would miss descriptors or secrets that its unit gives it", `
		OpenFile LoadCredential LoadCredentialEncrypted SetCredential SetCredentialEncrypted ImportCredential
		USBFunctionDescriptors USBFunctionStrings StandardInputText StandardInputData`)

	add(Ignored, "Service", "what it may use of processors, memory, disks and processes is not limited or weighted", `
		AllowedCPUs StartupAllowedCPUs AllowedMemoryNodes StartupAllowedMemoryNodes CPUWeight StartupCPUWeight CPUQuota
		CPUQuotaPeriodSec MemoryMin DefaultMemoryMin DefaultMemoryLow DefaultStartupMemoryLow MemoryLow StartupMemoryLow
		MemoryHigh StartupMemoryHigh MemoryMax StartupMemoryMax MemorySwapMax StartupMemorySwapMax MemoryZSwapMax
		StartupMemoryZSwapMax MemoryZSwapWriteback IOWeight StartupIOWeight IODeviceWeight IOReadBandwidthMax
		IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax IODeviceLatencyTargetSec TasksMax MemoryKSM DisableControllers`)
	add(Ignored, "Service", "its processes are scheduled as the supervisor's are", `
		CPUAffinity CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork IOSchedulingClass
		IOSchedulingPriority NUMAPolicy NUMAMask TimerSlackNSec`)
	add(Ignored, "Service", "nobody watches for a shortage of memory; the kernel may still kill, which counts as a failure", `
		OOMPolicy ManagedOOMSwap ManagedOOMMemoryPressure ManagedOOMMemoryPressureLimit ManagedOOMMemoryPressureDurationSec
		ManagedOOMPreference MemoryPressureWatch MemoryPressureThresholdSec`)
	add(Ignored, "Service", "lines are not filtered, marked or limited by it", `
		LogLevelMax LogExtraFields LogFilterPatterns LogNamespace LogRateLimitIntervalSec LogRateLimitBurst SyslogFacility
		SyslogLevel BindLogSockets`)
	add(Ignored, "Service", "no terminal is opened or set up", `
		TTYPath TTYReset TTYVHangup TTYVTDisallocate TTYRows TTYColumns`)
	add(Ignored, "Service", "descriptors that it sends with FDSTORE=1 are not kept", "FileDescriptorStoreMax FileDescriptorStorePreserve")
	add(Ignored, "Service", "IPC objects of its user stay", "RemoveIPC")
	add(Ignored, "Service", "it is not given a part of the control group tree", "Delegate DelegateSubgroup CoredumpReceive")
	add(Ignored, "Service", "its processes begin as the supervisor's are", "Personality CoredumpFilter MountFlags MountAPIVFS SetLoginEnvironment")
	add(Ignored, "Service", "directories have no quota", `
		StateDirectoryQuota CacheDirectoryQuota LogsDirectoryQuota StateDirectoryAccounting CacheDirectoryAccounting LogsDirectoryAccounting`)
	add(Ignored, "Service", "commands are looked for in PATH", "ExecSearchPath")
	add(Ignored, "Service", "no name on D-Bus is waited for", "BusName")
	add(Moot, "Service", "there are no slices, and what is used is not counted apart", `
		Slice CPUAccounting MemoryAccounting IOAccounting TasksAccounting IPAccounting NetClass`)
	add(Moot, "Service", "listeners are always lent non-blocking; Blocking=yes in [X-Supervise] of the socket lends them blocking", "NonBlocking")
	add(Moot, "Service", "there is no utmp, no systemctl clean and no sysvinit here", "UtmpIdentifier UtmpMode TimeoutCleanSec SysVStartPriority BusPolicy Capabilities")
	add(Supported, "Service", "commands other than ExecStart= run as the supervisor does", "PermissionsStartOnly")

	add(Ignored, "Unit", "the machine is not shut down, restarted or left by it", `
		FailureAction SuccessAction StartLimitAction JobTimeoutAction FailureActionExitStatus SuccessActionExitStatus
		RebootArgument JobTimeoutRebootArgument`)
	add(Ignored, "Unit", "a start has TimeoutStartSec= and nothing else", "JobTimeoutSec JobRunningTimeoutSec OnFailureJobMode OnSuccessJobMode")
	add(Ignored, "Unit", "nothing is mounted, and nothing waited for", "RequiresMountsFor WantsMountsFor")
	add(Ignored, "Unit", "a stop or reload is not passed on", "PropagatesReloadTo ReloadPropagatedFrom PropagatesStopTo StopPropagatedFrom")
	add(Ignored, "Unit", "no namespace is shared", "JoinsNamespaceOf")
	kinds := `PathIsMountPoint PathIsEncrypted NeedsUpdate FirstBoot Firmware Virtualization KernelCommandLine KernelVersion
		Version Credential Security Capability ACPower Memory CPUFeature CPUs ControlGroupController OSRelease MemoryPressure
		CPUPressure IOPressure KernelModuleLoaded PathIsSocket`
	for _, kind := range strings.Fields(kinds) {
		add(Ignored, "Unit", "it is started whether that holds or not", "Condition"+kind+" Assert"+kind)
	}
	add(Moot, "Unit", "for systemd's own keeping of units", `
		Documentation SourcePath DefaultDependencies RefuseManualStart RefuseManualStop AllowIsolate IgnoreOnIsolate
		IgnoreOnSnapshot CollectMode SurviveFinalKillSignal`)

	add(Refused, "Socket", "the service would miss a listener that its unit gives it", `
		ListenFIFO ListenNetlink ListenSpecial ListenMessageQueue ListenUSBFunction`)
	add(Refused, "Socket", "the socket would be another than its unit says", "SocketProtocol SmackLabel SmackLabelIPIn SmackLabelIPOut SELinuxContextFromNet")
	add(Ignored, "Socket", "the option is not set on the socket", `
		PassPIDFD PassSecurity PassPacketInfo AcceptFileDescriptors Timestamping TCPCongestion`)
	add(Ignored, "Socket", "activation is limited by TriggerLimitBurst= alone", "PollLimitIntervalSec PollLimitBurst DeferTrigger DeferTriggerMaxSec")
	add(Ignored, "Socket", "the commands of a socket are given no listeners", "PassFileDescriptorsToExec")
	add(Moot, "Socket", "for what ListenFIFO= and its like would open", "Writable PipeSize MessageQueueMaxMessages MessageQueueMessageSize")

	add(Moot, "Install", "nothing is enabled or linked: what is given is started", "Alias WantedBy RequiredBy UpheldBy Also")
	return all
}

// harmless says that value is how a directive is switched off: then nothing is
// lost.
func harmless(d Directive, value string) bool {
	if value == "" {
		return true
	}
	if off, err := ParseBool(value); d.Support == Refused && err == nil && !off {
		return true
	}
	switch d.Name + "=" + value {
	case "DevicePolicy=auto", "KeyringMode=inherit", "KeyringMode=shared", "ProcSubset=all", "ProtectProc=default",
		"FailureAction=none", "SuccessAction=none", "StartLimitAction=none", "JobTimeoutAction=none", "OOMPolicy=continue",
		"FileDescriptorStoreMax=0", "JobTimeoutSec=infinity", "MemoryMax=infinity", "MemoryHigh=infinity", "TasksMax=infinity", "RemoveIPC=no":
		return true
	}
	return false
}
